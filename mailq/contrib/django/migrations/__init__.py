"""One migration for each revision of mailq's own, of the same name; and one that tells Django of the models."""
