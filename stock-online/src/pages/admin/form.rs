//! Forms of the admin's pages: the call and the fields of each, as the page's script sends them.

use serde_json::Value;

use crate::pages::context::PageContext;

/// How a field is filled in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input {
    Text,
    Number,
    Decimal,
    /// True or false.
    Check,
    /// A date and time in the reader's time zone.
    Time,
    /// One of some names.
    Choice(&'static [&'static str]),
    /// Names, separated by commas.
    List,
    /// Fixed, as text.
    Fixed(&'static str),
    /// Fixed, true or false.
    FixedFlag(&'static str),
    File,
}

impl Input {
    /// The type of its element, and how the script reads it.
    const fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Text => ("text", ""),
            Self::Number => ("number", "integer"),
            Self::Decimal => ("number", "number"),
            Self::Check => ("checkbox", "boolean"),
            Self::Time => ("datetime-local", "time"),
            Self::Choice(_) => ("select", ""),
            Self::List => ("text", "list"),
            Self::Fixed(_) => ("hidden", ""),
            Self::FixedFlag(_) => ("hidden", "boolean"),
            Self::File => ("file", ""),
        }
    }

    /// The fixed value, if there is one, and the choices.
    const fn values(self) -> (Option<&'static str>, &'static [&'static str]) {
        match self {
            Self::Fixed(value) | Self::FixedFlag(value) => (Some(value), &[]),
            Self::Choice(choices) => (None, choices),
            Self::Text
            | Self::Number
            | Self::Decimal
            | Self::Check
            | Self::Time
            | Self::List
            | Self::File => (None, &[]),
        }
    }
}

/// Where a field is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Body,
    Path,
    Query,
    /// The field is the whole body.
    Whole,
}

/// A field of a form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    name: &'static str,
    input: Input,
    is_required: bool,
    place: Place,
    /// The object's member that prefills it.
    prefilled: Option<&'static str>,
}

/// A required field of the body.
pub(super) const fn field(name: &'static str, input: Input) -> Field {
    Field {
        name,
        input,
        is_required: true,
        place: Place::Body,
        prefilled: None,
    }
}

impl Field {
    pub(super) const fn optional(mut self) -> Self {
        self.is_required = false;
        self
    }

    pub(super) const fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Prefills the field with the object's member of the same name.
    pub(super) const fn prefilled(self) -> Self {
        self.prefilled_with(self.name)
    }

    pub(super) const fn prefilled_with(mut self, member: &'static str) -> Self {
        self.prefilled = Some(member);
        self
    }
}

/// A form: a call and its fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// The form's name; the id of its title is `form-<slug>`.
    pub(super) slug: &'static str,
    /// Method and path; `{name}` stands for the object's member.
    pub(super) call: &'static str,
    pub(super) fields: &'static [Field],
    /// Whether it carries an Idempotency-Key.
    pub(super) is_keyed: bool,
    /// Whether the reader must confirm the call.
    pub(super) is_grave: bool,
    /// Whether the answer is shown instead of the reloaded page.
    pub(super) shows_answer: bool,
    /// Name of the text after success; the id of the text is `said-<said>`.
    pub(super) said: &'static str,
    /// The objects that have the form: a member, and the values that it may have.
    pub(super) only: Option<(&'static str, &'static [&'static str])>,
}

/// A form that carries no key.
pub(super) const fn form(slug: &'static str, call: &'static str, fields: &'static [Field]) -> Form {
    Form {
        slug,
        call,
        fields,
        is_keyed: false,
        is_grave: false,
        shows_answer: false,
        said: "done",
        only: None,
    }
}

/// A form that carries an Idempotency-Key.
pub(super) const fn keyed(
    slug: &'static str,
    call: &'static str,
    fields: &'static [Field],
) -> Form {
    Form {
        is_keyed: true,
        ..form(slug, call, fields)
    }
}

impl Form {
    pub(super) const fn grave(mut self) -> Self {
        self.is_grave = true;
        self
    }

    /// Reports after success that the work has begun, because it takes longer than the answer.
    pub(super) const fn beginning(mut self) -> Self {
        self.said = "started";
        self
    }

    pub(super) const fn answering(mut self) -> Self {
        self.shows_answer = true;
        self
    }

    pub(super) const fn only(
        mut self,
        member: &'static str,
        values: &'static [&'static str],
    ) -> Self {
        self.only = Some((member, values));
        self
    }

    /// Whether the form makes sense for an object.
    pub(super) fn fits(&self, item: &Value) -> bool {
        self.only
            .is_none_or(|(name, values)| values.contains(&plain(member(item, name)).as_str()))
    }
}

/// A member of an object; null when it has none.
pub(super) fn member<'a>(item: &'a Value, name: &str) -> &'a Value {
    item.get(name).unwrap_or(&Value::Null)
}

/// A member as text without quotes; empty for null.
fn plain(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_null() => String::new(),
        None => value.to_string(),
    }
}

/// A path with an object's members filled in. Other names stay, for a field of the form.
pub(super) fn filled(template: &str, item: &Value) -> String {
    let mut path = template.to_owned();
    for (name, value) in item.as_object().into_iter().flatten() {
        path = path.replace(&format!("{{{name}}}"), &plain(value));
    }
    path
}

/// A field as the template draws it.
pub(super) struct FieldView {
    pub(super) name: &'static str,
    pub(super) label: String,
    /// The type of its input; `select` for a choice.
    pub(super) kind: &'static str,
    /// How the script reads it.
    pub(super) read_as: &'static str,
    /// Where the script sends it.
    pub(super) place: &'static str,
    pub(super) value: String,
    pub(super) is_required: bool,
    pub(super) is_checked: bool,
    /// Whether an empty text is sent, because it clears the value that the field shows.
    pub(super) may_be_emptied: bool,
    pub(super) choices: &'static [&'static str],
}

impl FieldView {
    fn new(context: &PageContext, field: &Field, item: &Value) -> Self {
        let known = field.prefilled.map(|name| member(item, name));
        let (kind, read_as) = field.input.kind();
        let (fixed, choices) = field.input.values();
        let value = match fixed {
            Some(value) => value.to_owned(),
            None => known.map(plain).unwrap_or_default(),
        };
        Self {
            name: field.name,
            label: context.of("field-", field.name),
            kind,
            read_as,
            place: match field.place {
                Place::Body => "",
                Place::Path => "path",
                Place::Query => "query",
                Place::Whole => "body",
            },
            is_required: field.is_required,
            may_be_emptied: field.prefilled.is_some() && matches!(field.input, Input::Text),
            is_checked: known == Some(&Value::Bool(true)),
            choices,
            value,
        }
    }
}

/// A form as the template draws it.
pub(super) struct FormView {
    pub(super) slug: &'static str,
    pub(super) title: String,
    pub(super) call: String,
    pub(super) fields: Vec<FieldView>,
    pub(super) is_keyed: bool,
    pub(super) shows_answer: bool,
    pub(super) said: &'static str,
    /// The question that the reader must confirm.
    pub(super) question: Option<String>,
    /// Whether the form is a button and nothing else.
    pub(super) is_bare: bool,
}

impl FormView {
    pub(super) fn new(context: &PageContext, form: &Form, item: &Value) -> Self {
        let title = context.of("form-", form.slug);
        let fields = form.fields.iter();
        let fields: Vec<FieldView> = fields
            .map(|field| FieldView::new(context, field, item))
            .collect();
        Self {
            slug: form.slug,
            question: form
                .is_grave
                .then(|| context.with("sure", "what", title.clone())),
            title,
            call: filled(form.call, item),
            is_bare: fields.iter().all(|field| field.kind == "hidden"),
            fields,
            is_keyed: form.is_keyed,
            shows_answer: form.shows_answer,
            said: form.said,
        }
    }
}
