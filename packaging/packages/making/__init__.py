"""How packages are made; `build.py` beside this folder is the command, and makes `building` known."""
