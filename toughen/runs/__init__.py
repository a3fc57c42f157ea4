"""Run directories: files and their format, atomic writing, locks, and the next commands for a run."""

from typing import TYPE_CHECKING

from toughen.utils.lazy import lazily

if TYPE_CHECKING:
    from toughen.runs.directory import METRICS as METRICS
    from toughen.runs.directory import RECORD as RECORD
    from toughen.runs.directory import SEEN as SEEN
    from toughen.runs.directory import WEIGHTS as WEIGHTS
    from toughen.runs.directory import Record as Record
    from toughen.runs.directory import count_seen as count_seen
    from toughen.runs.directory import create_own as create_own
    from toughen.runs.directory import holds_history as holds_history
    from toughen.runs.directory import load as load
    from toughen.runs.directory import read_history as read_history
    from toughen.runs.directory import read_record as read_record
    from toughen.runs.directory import same_images as same_images
    from toughen.runs.directory import seen_hashes as seen_hashes
    from toughen.runs.directory import streamed as streamed
    from toughen.runs.directory import write_history as write_history
    from toughen.runs.directory import write_model as write_model
    from toughen.runs.directory import write_seen as write_seen
else:  # the report and the command line use files and locks without waiting for torch
    __getattr__, __dir__ = lazily(
        __name__,
        dict.fromkeys(
            (
                *(
                    "METRICS",
                    "RECORD",
                    "SEEN",
                    "WEIGHTS",
                    "Record",
                    "count_seen",
                    "create_own",
                    "holds_history",
                    "load",
                    "read_history",
                ),
                *("read_record", "same_images", "seen_hashes", "streamed"),
                *("write_history", "write_model", "write_seen"),
            ),
            "toughen.runs.directory",
        ),
        ("directory", "files", "follow_up", "loading", "locks", "repository", "single_file"),
    )
