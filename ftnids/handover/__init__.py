"""The state of an IDS from a replica to one that joins: who asks whom, in which pieces, until when."""
