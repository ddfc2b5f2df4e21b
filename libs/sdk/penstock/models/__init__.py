"""What the API answers with, typed. Fields that this version does not know are ignored."""
