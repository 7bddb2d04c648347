"""The program ``mailq``: its commands, and the one line and exit code that every error ends in."""

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import mailq
from mailq.cli.act import bounce, cancel, expire, hold, purge, release, reroute, retry
from mailq.cli.doctor import doctor
from mailq.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from mailq.cli.history import history
from mailq.cli.limits import limits
from mailq.cli.look import list_command, show
from mailq.cli.monitor import flower, metrics
from mailq.cli.postfix import from_postfix
from mailq.cli.run import dev, migrate, worker
from mailq.cli.send import send
from mailq.cli.sendmail import sendmail
from mailq.cli.session import Session, common_options
from mailq.cli.sink import sink
from mailq.cli.suspend import resume, suspend, suspensions
from mailq.cli.tls import tls_check, tlsrpt
from mailq.cli.uncertain import uncertain
from mailq.cli.why import audit, explain
from mailq.errors import MailqError


class Program(click.Group):
    """The group of all commands; turns errors into one line on standard error."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += common_options()

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> Any:
        """Run the program; it ends the process unless *standalone_mode* is off."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        words = sys.argv[1:] if args is None else list(args)
        try:
            sys.exit(super().main(args, prog_name, complete_var, False, **extra) or ExitCode.OK)
        except click.UsageError as error:
            error.show()
            sys.exit(ExitCode.USAGE)
        except click.ClickException as error:
            error.show()
            sys.exit(ExitCode.DATA)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(ExitCode.INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - the last resort; -v shows the traceback
            _fail(error, verbose=any(word in {"-v", "-vv", "--verbose"} for word in words))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of exit codes."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), meaning) for code, meaning in MEANINGS.items()])


def _fail(error: Exception, *, verbose: bool) -> NoReturn:
    if verbose:
        traceback.print_exception(error)
    text = " ".join(str(error).split())
    if not isinstance(error, MailqError):
        text = f"internal error: {type(error).__name__}: {text}; run again with -v to see where"
    click.echo(f"mailq: {text}", err=True)
    sys.exit(exit_code_of(error))


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mailq.__version__, prog_name="mailq")
@click.pass_context
def main(context: click.Context) -> None:
    """Queue outgoing mail, deliver it, and see what became of it.

    Settings come from the environment (MAILQ_…), then from the file that
    --config or MAILQ_CONFIG names. "mailq doctor" shows those in force.
    """
    # The commands below share this one.
    context.ensure_object(Session)


for _command in (
    audit,
    bounce,
    cancel,
    dev,
    doctor,
    history,
    expire,
    explain,
    flower,
    from_postfix,
    hold,
    limits,
    list_command,
    metrics,
    migrate,
    purge,
    release,
    reroute,
    resume,
    retry,
    send,
    sendmail,
    show,
    sink,
    suspend,
    suspensions,
    tls_check,
    tlsrpt,
    uncertain,
    worker,
):
    main.add_command(_command)
