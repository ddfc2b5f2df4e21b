create table notes (id serial, text text);
