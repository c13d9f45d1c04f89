"""Hypothesis strategies: YAML text, --set words and settings as hands and programs
get them wrong."""
import json

from hypothesis import strategies as st

from swinmpi.config.loading import known_keys

numbers = st.one_of(st.integers(), st.sampled_from([0, -1, 1, 2, 3, 2**31, 2**63, 2**64, 10**30]),
                    st.floats(), st.sampled_from([1e-320, 1e308, 1e-9, 0.5]))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=12),
                    st.sampled_from(["auto", "all", "rrdb", "thesis"]))
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(
    st.text(max_size=6), inner, max_size=3)), max_leaves=6)
keys = st.one_of(st.sampled_from(known_keys()), st.text(max_size=16),
                 st.sampled_from(["model", "sampler.shift", "a..b", "."]))
set_words = st.one_of(st.builds(lambda key, value: f"{key}={json.dumps(value)}", keys, values),
                      st.builds(lambda key, text: f"{key}={text}", keys, st.text(max_size=30)),
                      st.text(max_size=30))
fragments = st.sampled_from(["a: ", "- ", "\n", "  ", "{", "}", "[", "]", "&a ", "*a", "!!int ",
                             "!!python/name:os.system ", "? ", ": ", "1e-4", "|", ">", "'", '"',
                             "#", "---", "...", "<<: ", "%YAML 1.1\n", "\t", "0x", "2001-02-30",
                             ".inf", "model:\n", "  family: thesis\n", "  window_px: 32\n",
                             "sampler: {steps: 3}\n"])
yaml_texts = st.one_of(st.text(max_size=60), st.lists(fragments, max_size=25).map("".join),
                       values.map(json.dumps))


@st.composite
def settings(draw) -> dict:
    """Nested as a configuration is, with up to three values that may be anything."""
    nested: dict = {}
    for _ in range(draw(st.integers(1, 3))):
        *sections, last = draw(st.sampled_from(known_keys())).split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                break
        else:
            place[last] = draw(values)
    return nested
