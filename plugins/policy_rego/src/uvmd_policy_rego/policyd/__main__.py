"""``python -I -S .../policyd/__main__.py FOLDER...``: descriptor 3 listens, the folders hold the packages."""

import sys

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # its limit on files would not let it
    # Last: what is asked for by name comes from the standard library where it has it.
    sys.path += sys.argv[1:]
    from uvmd_policy_rego.policyd.main import main

    sys.exit(main())
