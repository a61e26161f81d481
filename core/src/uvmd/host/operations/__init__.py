"""One request a module: what it checks, asks, does and undoes, in that order."""
