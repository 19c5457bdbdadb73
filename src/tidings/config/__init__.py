"""What the operator tells the service: flags beat environment variables, variables beat the file.

Everything is read once, before anything starts; all mistakes are reported together.
"""

from tidings.config.settings import Settings, describe
from tidings.config.sources import Variable
from tidings.config.values import Database, Postgres, SqliteFile

__all__ = ["Database", "Postgres", "Settings", "SqliteFile", "Variable", "describe"]
