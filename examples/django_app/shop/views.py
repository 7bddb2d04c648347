"""Ordering: the order and its confirmation are committed together, or neither is."""

from django import forms
from django.core.mail import EmailMessage
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from shop.models import Order


class OrderForm(forms.ModelForm):
    """What a customer says."""

    class Meta:
        model = Order
        fields = ("email", "item")


def order(request: HttpRequest) -> HttpResponse:
    """Take an order, and confirm it by mail in the same transaction."""
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            placed = form.save()
            EmailMessage(
                subject=f"Your order of {placed.item}",
                body=f"Thank you! Order {placed.pk} is on its way.",
                to=[placed.email],
            ).send()
        return redirect("thanks", placed.pk)
    return render(request, "shop/order.html", {"form": form})


def thanks(request: HttpRequest, number: int) -> HttpResponse:
    """Say that it worked."""
    return render(request, "shop/thanks.html", {"number": number})
