"""What the shop sells, to whom, and who wants its newsletter."""

from django.db import models


class Order(models.Model):
    """One order of a customer."""

    email = models.EmailField()
    item = models.CharField(max_length=100)
    placed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.item} for {self.email}"


class Subscriber(models.Model):
    """One reader of the newsletter."""

    email = models.EmailField(unique=True)

    def __str__(self) -> str:
        return self.email
