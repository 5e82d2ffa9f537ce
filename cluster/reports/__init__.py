"""What a replay found, for people: tables on the terminal and a self-contained page with plots before and after."""
