"""The way of a range, one arrow per file: jobs, ranges, dispatch, packing, stageout, reports."""
