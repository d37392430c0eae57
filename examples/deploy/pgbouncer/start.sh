# The one user and the password, as PgBouncer reads them: in quotes, with a quote in the password doubled.
set -eu
umask 077
printf '"market" "%s"\n' "$(printf %s "$POSTGRES_PASSWORD" | sed 's/"/""/g')" > /tmp/users
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
