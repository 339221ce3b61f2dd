"""What a payload author needs: event ranges in a loop, outputs back.

    from espilot.payload import EventRanges

    for event_range in EventRanges():
        path = event_range.output_path()
        ...                                # make the file for event_range.events
        event_range.done(path)

It depends on pyzmq and msgpack alone, so a payload can bring it along.
"""

from espilot.payload.ranges import EventRanges, RangeInHand

__all__ = ["EventRanges", "RangeInHand"]
