"""The documents by which pages that show a map learn which of its tiles have changed, and the places where they are put."""
