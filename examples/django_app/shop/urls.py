"""The shop's pages, and the admin."""

from django.contrib import admin
from django.urls import path

from shop import views

urlpatterns = [
    path("", views.order, name="order"),
    path("thanks/<int:number>/", views.thanks, name="thanks"),
    path("admin/", admin.site.urls),
]
