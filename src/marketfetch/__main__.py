"""`python -m marketfetch`: the command line without the command."""

from marketfetch.face.cli import main

raise SystemExit(main())
