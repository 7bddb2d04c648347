"""The shop's own tables in the admin; the queue is there by itself."""

from django.contrib import admin

from shop.models import Order, Subscriber

admin.site.register([Order, Subscriber])
