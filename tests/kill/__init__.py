"""Real services, killed at random moments under load; then every acknowledged event is looked for at its receivers.

    python -m tests.kill --kills 200 --seed 7

A campaign is a number of rounds. Each has a fresh database, one service on it, two, or one of workers, publishers and
receivers (`load.py`), and some falls (`campaign.py`): a process gets SIGKILL while it migrates, starts, serves or
drains, or is stopped until its lease has run out. After each fall the files are looked at as the dead process left
them (`disk.py`): which deliveries were in flight, and where their cursors stood. At the end of a round the log, the
answers to publishers and what the receivers saw are held against each other (`reconcile.py`).

`mutants.py` starts services that are wrong on purpose: a campaign with one of them must fail.
"""
