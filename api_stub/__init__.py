"""What people and programs touch: the client, the command line, the local stack."""
