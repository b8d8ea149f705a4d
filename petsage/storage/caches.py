"""What SQLAlchemy keeps of a feature's tables and types for the sake of speed."""

from sqlalchemy import Engine


def forget_all(engine: Engine) -> None:
    """Lets go of it, so that a feature that was replaced is garbage; it is made again."""
    engine.clear_compiled_cache()
    # A dialect's notes on a type hold on to it, where it has processors of its own: weak keys do
    # not help there. The name is SQLAlchemy's own; a test fails where it changes.
    memos = getattr(engine.dialect, "_type_memos", None)
    if memos is not None:
        memos.clear()
