"""Candidates and the real sample: reading files, and the views of examples.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.data.candidate import Candidate, RealSample
    from synque_select.data.contamination import Overlap, count_overlap
    from synque_select.data.examples import Examples, MapDataset
    from synque_select.data.readers import BaseReader, reader_suffixes, register_reader
    from synque_select.data.sources import load_candidates, load_dataset_file, load_real
    from synque_select.data.views import Selector, View, fields_view

__all__ = [
    "BaseReader",
    "Candidate",
    "Examples",
    "MapDataset",
    "Overlap",
    "RealSample",
    "Selector",
    "View",
    "count_overlap",
    "fields_view",
    "load_candidates",
    "load_dataset_file",
    "load_real",
    "reader_suffixes",
    "register_reader",
]

__getattr__ = lazy_names(
    __name__,
    {
        "BaseReader": "readers",
        "Candidate": "candidate",
        "Examples": "examples",
        "MapDataset": "examples",
        "Overlap": "contamination",
        "RealSample": "candidate",
        "Selector": "views",
        "View": "views",
        "count_overlap": "contamination",
        "fields_view": "views",
        "load_candidates": "sources",
        "load_dataset_file": "sources",
        "load_real": "sources",
        "reader_suffixes": "readers",
        "register_reader": "readers",
    },
)
