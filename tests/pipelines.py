"""Generated plans of maps, and of tasks that take their elements as they end."""

from hypothesis import strategies as st


@st.composite
def pipelines(draw, *, streams):
    """Return for each stage the maps that it takes, whether it is a map, and after how many elements a task stops.

    A task takes at most so many `streams`.
    """
    plan = [((), True, None)]
    for _ in range(draw(st.integers(1, 5))):
        maps = [place for place, (_, is_map, _) in enumerate(plan) if is_map]
        taken = draw(st.lists(st.sampled_from(maps), min_size=1, max_size=2, unique=True))
        is_map = draw(st.booleans())
        stop = None if is_map else draw(st.sampled_from([None, None, 0, 5]))
        plan.append((tuple(taken if is_map else taken[:streams]), is_map, stop))
    return plan


@st.composite
def mixed_pipelines(draw):
    """Return for each stage the maps that it takes, whether it is a map, a coroutine function, and is kept."""
    plan = [((), True, draw(st.booleans()), draw(st.booleans()))]
    for _ in range(draw(st.integers(1, 4))):
        maps = [place for place, (_, is_map, _, _) in enumerate(plan) if is_map]
        is_map = draw(st.booleans())
        taken = draw(st.lists(st.sampled_from(maps), min_size=1, max_size=2 if is_map else 1, unique=True))
        plan.append((tuple(taken), is_map, draw(st.booleans()), draw(st.booleans())))
    return plan


def maps_in_order(plan):
    """Return the maps of which somebody further on takes elements in order, or side by side with another map."""
    found = set()
    for place in range(len(plan) - 1, -1, -1):
        taken, is_map, _ = plan[place]
        if len(taken) > 1 or not is_map or place in found:
            found.update(taken)
    return found
