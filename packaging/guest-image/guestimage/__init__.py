"""How the image of a utility VM is made; `build.py` beside this folder is the command."""
