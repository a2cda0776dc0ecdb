"""The keywords of every call: each is declared once, with its type, default, help, and how text is read."""
