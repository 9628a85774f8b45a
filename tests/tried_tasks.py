"""Tasks that fail at first, for workers elsewhere to import."""

from tenacity import Retrying, stop_after_attempt, wait_fixed

from procession import current_task, task

THRICE = Retrying(stop=stop_after_attempt(3), wait=wait_fixed(0.1))


@task(retries=THRICE)
def ask(what):
    attempt = current_task().attempt
    if attempt < 3 or what == "never":
        raise ConnectionError(f"{what} refused, attempt {attempt}")
    return what


@task(retries=THRICE)
async def ask_awaited(what):
    return ask(what)
