"""The files that runs write and reports read: types, versions, reading, writing; without torch."""
