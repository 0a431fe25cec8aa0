"""What the site agrees on: the rows of the catalog, the commands that change them, and the listings. Pure."""

from edgestore.catalog import commands
from edgestore.catalog.apply import WATCHED, Applier
from edgestore.catalog.keys import Table
from edgestore.catalog.listing import ObjectPage, UploadPage, VersionPage, list_objects, list_uploads, list_versions
from edgestore.catalog.repair import GapApplier
from edgestore.catalog.site_state import ExtentPage
from edgestore.catalog.state import State
from edgestore.catalog.tokens import check_policy

__all__ = [
    "WATCHED",
    "Applier",
    "ExtentPage",
    "GapApplier",
    "ObjectPage",
    "State",
    "Table",
    "UploadPage",
    "VersionPage",
    "check_policy",
    "commands",
    "list_objects",
    "list_uploads",
    "list_versions",
]
