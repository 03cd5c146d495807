"""What the pages of the lessons share: their texts, live answers of the playground's models, and questions that are
graded.
"""
