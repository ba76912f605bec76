"""What an inbox and an outbox are both made of: how a file or a server is opened, asked, waited on and let go of."""
