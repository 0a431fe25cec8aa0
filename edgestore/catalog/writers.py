"""Commands on writers: one for each start of a node, open until the next one or until it is closed (rule 6)."""

from __future__ import annotations

import msgspec

from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, number, row, successor
from edgestore.records import SITE_TENANT, WriterRecord


def register_writer(context: Context, command: commands.RegisterWriter) -> WriterRecord:
    """Opens a writer; the earlier ones of the node are closed, which is: forgotten."""
    close_writers(context, command.node)
    record = WriterRecord(context.site.next_writer, command.node, context.index)
    context.site = msgspec.structs.replace(context.site, next_writer=context.site.next_writer + 1)
    context.put(Table.WRITERS, SITE_TENANT, number(record.writer), rows.encode(record))
    return record


def close_writers(context: Context, node: str) -> None:
    """Closes all writers of a node."""
    prefix = row(context.group, Table.WRITERS, SITE_TENANT)
    for key, value in context.transaction.scan(prefix, successor(prefix)):
        if rows.writer(value).node == node:
            context.transaction.delete(key)


def advance_writer(context: Context, command: commands.AdvanceWriter) -> None:
    """Moves the low-water mark up."""
    record = context.state.writer(command.writer)
    if record is None or record.low_water >= command.low_water:
        return
    changed = msgspec.structs.replace(record, low_water=command.low_water)
    context.put(Table.WRITERS, SITE_TENANT, number(record.writer), rows.encode(changed))


def close_writer(context: Context, command: commands.CloseWriter) -> None:
    """Nothing of this writer is named for the first time any more."""
    context.delete(Table.WRITERS, SITE_TENANT, number(command.writer))
