"""`python -m aa_plugins` is `aa-plugins`."""

from aa_plugins.command import main

main()
