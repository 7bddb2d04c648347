"""A sign-up form: the account and its confirmation mail are committed together, and a page shows what became of it."""

from flask import Flask, abort, redirect, render_template, request, url_for
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.wrappers import Response

from mailq import RefusedError, UnknownMessageError
from mailq.contrib.flask import Mailq

db = SQLAlchemy()
mail = Mailq()


class Account(db.Model):  # type: ignore[name-defined,misc]  # Flask-SQLAlchemy makes the base class at run time
    """Somebody who signed up."""

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    queue_id: Mapped[str]


def create_app(config: dict[str, object] | None = None) -> Flask:
    """Return the application; its configuration is in the environment as FLASK_…, or in *config*."""
    app = Flask(__name__)
    app.config.update({"SQLALCHEMY_DATABASE_URI": "sqlite:///shop.sqlite3", "MAIL_DEFAULT_SENDER": "shop@example.org"})
    app.config.from_prefixed_env()
    app.config.update(config or {})
    db.init_app(app)
    mail.init_app(app)
    app.add_url_rule("/", view_func=show_form)
    app.add_url_rule("/", view_func=sign_up, methods=["POST"])
    app.add_url_rule("/accounts/<int:account_id>", view_func=show_account)
    return app


def show_form() -> str:
    """Show the form."""
    accounts = db.session.execute(db.select(Account).order_by(Account.id.desc()).limit(10)).scalars()
    return render_template("form.html", accounts=accounts, problem="")


def sign_up() -> Response | tuple[str, int]:
    """Make an account and queue its confirmation: both, or neither."""
    email = request.form.get("email", "")
    try:
        queue_id = mail.send(
            to=[email],
            subject="Welcome to the shop",
            text="Your account is ready. Thank you for signing up!",
            tags={"kind": "confirmation"},
            mail_class="confirmation",
        )
    except RefusedError as error:
        return render_template("form.html", accounts=(), problem=str(error)), 400
    account = Account(email=email, queue_id=queue_id)
    db.session.add(account)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return render_template("form.html", accounts=(), problem=f"{email} has an account already"), 409
    return redirect(url_for("show_account", account_id=account.id))


def show_account(account_id: int) -> str:
    """Show what became of the confirmation."""
    account = db.session.get(Account, account_id)
    if account is None:
        abort(404)
    try:
        message = mail.queue.show(account.queue_id)
    except UnknownMessageError:
        message = None
    explanations = mail.queue.explain(account.queue_id) if message is not None else ()
    return render_template("account.html", account=account, message=message, explanations=explanations)
