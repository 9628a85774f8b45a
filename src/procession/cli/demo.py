"""Where the demonstration is: an example of the project, which its packages carry along."""

from pathlib import Path

TARGET_NAME = "build"


def demo_target() -> str:
    """Return the target of the demonstration, as `procession run` takes it."""
    packaged = Path(__file__).with_name("source_audit.py")
    cloned = Path(__file__).parents[3] / "examples" / "source_audit.py"
    return f"{packaged if packaged.exists() else cloned}:{TARGET_NAME}"
