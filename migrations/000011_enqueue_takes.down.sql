-- Nothing to undo: programs of the release before call the same function.
SELECT 1;
