"""The process in which a policy lives: started by its path, without site and without uvmd's core.

Kept out: the daemon's side (``remote.py``), and what a policy means (``desk.py``).
"""
