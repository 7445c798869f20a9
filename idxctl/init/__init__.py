"""From a table to an index of one's own: what its rows and their foreign keys make a document of, and the files that say so."""
