"""From tokens to what the tasks fit on."""

from tfxformer.data.files.rows import load
from tfxformer.data.highlights import highlight
from tfxformer.data.records.format import RecordsError, rows_of
from tfxformer.data.records.preparing import prepare_records
from tfxformer.data.records.records import Records, write_records
from tfxformer.data.targets.entity_markers import ENTITY_MARKERS, mark_entities

__all__ = [
    "ENTITY_MARKERS",
    "Records",
    "RecordsError",
    "highlight",
    "load",
    "mark_entities",
    "prepare_records",
    "rows_of",
    "write_records",
]
