"""python -m mpcompile"""

from mpcompile.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
