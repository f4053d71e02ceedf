"""The command line's verbs, one small file each: parse, call the room that does the work, print."""
