"""What is compared: each system sets itself up in a private directory, takes mail in, and tells what it used."""
