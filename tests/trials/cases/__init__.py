"""The list of bad inputs. A module is a kind: `KIND` is its row in the table, `cases()` its cases."""
