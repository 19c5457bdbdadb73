"""`tidings backup` and `tidings restore`."""

from __future__ import annotations

from pathlib import Path

import click

from tidings.cli.options import load_settings, settings_options
from tidings.cli.printing import progressing, say

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=_FILE)
@settings_options
def backup(file: Path, database: str | None, config: Path | None) -> None:
    """Copy the database into FILE, while it is served or not.

    Everything that was acknowledged before the start is in it. FILE is one complete, checked file for its owner
    alone, and is never overwritten. The key that secrets are sealed with is not in it.

    \b
    Example:
      tidings backup /backups/tidings-monday.db
    """
    settings = load_settings(config, {"database": database})
    from tidings import runtime

    with progressing(f"Backing up to {file}") as progress:
        source = runtime.back_up(settings, file, progress=progress)
    key = "TIDINGS_SECRET_KEY" if settings.secret_key is not None else f"{source}.key"
    say(f"Backed up {source} to {file}, {file.stat().st_size:,} bytes.")
    say(f"The key its secrets are sealed with is not in it. Keep {key} too, and apart from it.")


@click.command()
@click.argument("file", type=_FILE)
@settings_options
def restore(file: Path, database: str | None, config: Path | None) -> None:
    """Make the database anew from the backup in FILE.

    No database is overwritten: move the old one away first, with its -wal and -shm. Deliveries go on where the
    backup's were; some are made again, under other ids. What was accepted after the backup is gone.

    \b
    Example:
      tidings restore /backups/tidings-monday.db
    """
    settings = load_settings(config, {"database": database})
    from tidings import runtime

    with progressing(f"Restoring {file}") as progress:
        restored = runtime.restore(settings, file, progress=progress)
    say(f"Restored {file} to {restored.path}.")
    if restored.key_missing is not None:
        say(restored.key_missing)
    say("Events accepted after the backup are not in it: have them published again.")
    say("Tokens revoked since are valid again, and webhooks deleted since are back.")
