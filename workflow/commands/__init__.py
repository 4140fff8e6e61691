"""The commands, by subject. Heavy libraries are imported where they are used, so that help is fast."""
