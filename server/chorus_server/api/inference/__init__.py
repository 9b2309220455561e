"""From a body to engine requests and back: items, templates, ids, answers, streams, votes."""
