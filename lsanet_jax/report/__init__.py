"""Tables, pages and figures of a sweep."""
