"""python -m zeronorm: the command."""

from zeronorm.cli import main

if __name__ == "__main__":
    main(prog_name="zeronorm")
