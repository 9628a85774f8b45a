"""Tasks whose names are templates, for workers elsewhere to import."""

from procession import task


@task(name="fetch {url}")
def fetch(url, tries=1):
    if url == "broken":
        raise ValueError(f"{url} after {tries}")
    return url.upper()


@task(name="fetch {url}")
async def fetch_awaited(url):
    return url.upper()
