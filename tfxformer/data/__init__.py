"""From tokens to what the tasks fit on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfxformer import lazy

if TYPE_CHECKING:  # what editors and type checkers complete; at run time they are imported when first used
    from tfxformer.data.few_examples.augmentation import augment as augment
    from tfxformer.data.few_examples.pseudo_labels import PseudoLabels as PseudoLabels
    from tfxformer.data.few_examples.pseudo_labels import pseudo_labels as pseudo_labels
    from tfxformer.data.few_examples.replay import replay as replay
    from tfxformer.data.files.rows import load as load
    from tfxformer.data.highlights import highlight as highlight
    from tfxformer.data.records.format import RecordsError as RecordsError
    from tfxformer.data.records.format import rows_of as rows_of
    from tfxformer.data.records.preparing import prepare_records as prepare_records
    from tfxformer.data.records.records import Records as Records
    from tfxformer.data.records.records import write_records as write_records
    from tfxformer.data.targets.entity_markers import ENTITY_MARKERS as ENTITY_MARKERS
    from tfxformer.data.targets.entity_markers import mark_entities as mark_entities

_MODULES = {
    "augment": "few_examples.augmentation",
    "PseudoLabels": "few_examples.pseudo_labels",
    "pseudo_labels": "few_examples.pseudo_labels",
    "replay": "few_examples.replay",
    "load": "files.rows",
    "highlight": "highlights",
    "RecordsError": "records.format",
    "rows_of": "records.format",
    "prepare_records": "records.preparing",
    "Records": "records.records",
    "write_records": "records.records",
    "ENTITY_MARKERS": "targets.entity_markers",
    "mark_entities": "targets.entity_markers",
}

__all__ = [
    "ENTITY_MARKERS",
    "PseudoLabels",
    "Records",
    "RecordsError",
    "augment",
    "highlight",
    "load",
    "mark_entities",
    "prepare_records",
    "pseudo_labels",
    "replay",
    "rows_of",
    "write_records",
]

__getattr__ = lazy.names_of(__name__, _MODULES)
