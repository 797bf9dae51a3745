"""`python -m anisora` is the `anisora` command."""

from anisora.serving.cli import main

if __name__ == "__main__":
    main()
