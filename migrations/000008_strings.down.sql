-- Nothing to undo: programs of the release before call the same functions.
SELECT 1;
